# Who may talk to whom: function -> proxy -> database, rotation -> database, and nothing else. The rules stand apart from
# the groups, which would otherwise refer to each other in a circle. The provider removes the rule that EC2 gives each new
# group, by which everything may leave it.

resource "aws_security_group" "function" {
  name        = "${var.name}-function"
  description = "The function"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "proxy" {
  name        = "${var.name}-proxy"
  description = "RDS Proxy"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "The database"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "rotation" {
  name        = "${var.name}-rotation"
  description = "The function that rotates the secret"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "endpoint" {
  count       = var.has_secrets_manager_route ? 0 : 1
  name        = "${var.name}-endpoint"
  description = "The interface endpoint for Secrets Manager"
  vpc_id      = var.vpc_id
}

locals {
  to_database = {
    function_to_proxy    = { from = aws_security_group.function.id, to = aws_security_group.proxy.id }
    proxy_to_database    = { from = aws_security_group.proxy.id, to = aws_security_group.database.id }
    rotation_to_database = { from = aws_security_group.rotation.id, to = aws_security_group.database.id }
  }
  # The rotation needs Secrets Manager always, the function only to read the secret itself. Signing an IAM token is no
  # network call, and the proxy has a way of its own.
  secret_readers = merge(
    { rotation = aws_security_group.rotation.id },
    var.auth == "secret" ? { function = aws_security_group.function.id } : {},
  )
}

resource "aws_vpc_security_group_egress_rule" "to_database" {
  for_each                     = local.to_database
  security_group_id            = each.value.from
  referenced_security_group_id = each.value.to
  ip_protocol                  = "tcp"
  from_port                    = local.engine.port
  to_port                      = local.engine.port
  description                  = each.key
}

resource "aws_vpc_security_group_ingress_rule" "to_database" {
  for_each                     = local.to_database
  security_group_id            = each.value.to
  referenced_security_group_id = each.value.from
  ip_protocol                  = "tcp"
  from_port                    = local.engine.port
  to_port                      = local.engine.port
  description                  = each.key
}

resource "aws_vpc_endpoint" "secrets_manager" {
  count               = var.has_secrets_manager_route ? 0 : 1
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${data.aws_region.current.region}.secretsmanager"
  vpc_id              = var.vpc_id
  subnet_ids          = var.subnet_ids
  security_group_ids  = [aws_security_group.endpoint[0].id]
  private_dns_enabled = true
}

resource "aws_vpc_security_group_egress_rule" "to_endpoint" {
  for_each                     = var.has_secrets_manager_route ? {} : local.secret_readers
  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.endpoint[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  description                  = "${each.key} to Secrets Manager"
}

resource "aws_vpc_security_group_ingress_rule" "to_endpoint" {
  for_each                     = var.has_secrets_manager_route ? {} : local.secret_readers
  security_group_id            = aws_security_group.endpoint[0].id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  description                  = "${each.key} to Secrets Manager"
}

# With a route of your own its addresses are not known here, so port 443 is open to all.
resource "aws_vpc_security_group_egress_rule" "to_route" {
  for_each          = var.has_secrets_manager_route ? local.secret_readers : {}
  security_group_id = each.value
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "${each.key} to Secrets Manager"
}
