data "aws_iam_policy_document" "trust_rds" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["rds.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "read_secret" {
  # With a KMS key of your own also kms:Decrypt on it, with kms:ViaService [RDS:rds-proxy-iam-setup].
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.app.arn]
  }
}

resource "aws_iam_role" "proxy" {
  name_prefix        = "${var.name}-proxy-"
  assume_role_policy = data.aws_iam_policy_document.trust_rds.json
}

resource "aws_iam_role_policy" "proxy" {
  name   = "read-the-secret"
  role   = aws_iam_role.proxy.id
  policy = data.aws_iam_policy_document.read_secret.json
}

resource "aws_db_proxy" "proxy" {
  name          = var.name
  engine_family = local.engine.family
  role_arn      = aws_iam_role.proxy.arn
  require_tls   = true
  # Above the library's DB_MAX_IDLE_S, which is 1500 s by default: who closes first should be the client.
  idle_client_timeout = 1800
  vpc_subnet_ids      = var.subnet_ids
  # Named, for in a shared VPC the default group may not be used [RDS:rds-proxy].
  vpc_security_group_ids = [aws_security_group.proxy.id]

  auth {
    auth_scheme = "SECRETS"
    secret_arn  = aws_secretsmanager_secret.app.arn
    iam_auth    = var.auth == "iam" ? "REQUIRED" : "DISABLED"
  }

  lifecycle {
    precondition {
      # RDS Proxy is not to be had there [RDS:rds-proxy]. With such a subnet beside good ones the proxy would be created,
      # and each plan would show a difference from then on.
      condition = alltrue([
        for subnet in data.aws_subnet.given : !contains(["use1-az3", "usw1-az2"], subnet.availability_zone_id)
      ])
      error_message = "RDS Proxy is not available in use1-az3 and usw1-az2: leave out the subnets there."
    }

    precondition {
      condition     = length(toset([for subnet in data.aws_subnet.given : subnet.availability_zone_id])) >= 2
      error_message = "RDS Proxy needs subnets in two availability zones."
    }
  }

  depends_on = [aws_iam_role_policy.proxy]
}

resource "aws_db_proxy_default_target_group" "proxy" {
  db_proxy_name = aws_db_proxy.proxy.name

  connection_pool_config {
    # The rest is for the rotation and for administrators.
    max_connections_percent      = 90
    max_idle_connections_percent = 45
    # Below the function's timeout, so that an exhausted pool is told as such.
    connection_borrow_timeout = 10
    init_query                = local.engine.init_query
    # No session_pinning_filters: the only one is for MySQL, and lets variables that one client sets reach others.
  }
}

resource "aws_db_proxy_target" "database" {
  db_proxy_name         = aws_db_proxy.proxy.name
  target_group_name     = aws_db_proxy_default_target_group.proxy.name
  db_cluster_identifier = aws_rds_cluster.database.cluster_identifier

  # Registering a cluster fails while it has no instance; a reference to the cluster alone does not wait for one.
  depends_on = [aws_rds_cluster_instance.database]
}

resource "aws_db_proxy_endpoint" "reader" {
  db_proxy_name          = aws_db_proxy.proxy.name
  db_proxy_endpoint_name = "${var.name}-reader"
  target_role            = "READ_ONLY"
  vpc_subnet_ids         = var.subnet_ids
  vpc_security_group_ids = [aws_security_group.proxy.id]
}
