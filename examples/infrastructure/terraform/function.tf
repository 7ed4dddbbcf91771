locals {
  # The proxy's own id, prx-..., is the last part of its ARN: not its name, and not the database's id. One permission
  # covers the read-only endpoint, too.
  proxy_id = element(split(":", aws_db_proxy.proxy.arn), 6)
  interfaces = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
  ]
  # No DB_SSLROOTCERT: the proxy's certificate is one that public authorities have signed.
  environment = {
    DB_ENGINE      = var.engine
    DB_HOST        = aws_db_proxy.proxy.endpoint
    DB_READER_HOST = aws_db_proxy_endpoint.reader.endpoint
    DB_NAME        = aws_rds_cluster.database.database_name
    DB_AUTH        = var.auth
  }
  environment_of = {
    iam    = { DB_USER = "app" }
    secret = { DB_SECRET_ID = aws_secretsmanager_secret.app.arn }
  }
}

data "aws_iam_policy_document" "trust_lambda" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "connect" {
  statement {
    actions   = ["rds-db:connect"]
    resources = ["arn:${data.aws_partition.current.partition}:rds-db:${local.arn_tail}:dbuser:${local.proxy_id}/app"]
  }
}

data "aws_iam_policy_document" "function" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function.arn}:*"]
  }

  # Lambda makes the interfaces with the function's role [LAM:configuration-vpc]. They have no names before that, so the
  # resource is all of them.
  statement {
    actions   = local.interfaces
    resources = ["*"]
  }

  # Lambda itself is not kept from them by this; the function's own code is.
  statement {
    effect    = "Deny"
    actions   = local.interfaces
    resources = ["*"]

    condition {
      test     = "ArnEquals"
      variable = "lambda:SourceFunctionArn"
      values   = ["arn:${data.aws_partition.current.partition}:lambda:${local.arn_tail}:function:${var.name}"]
    }
  }
}

resource "aws_iam_role" "function" {
  name_prefix        = "${var.name}-function-"
  assume_role_policy = data.aws_iam_policy_document.trust_lambda.json
}

resource "aws_iam_role_policy" "function" {
  name   = "logs-and-interfaces"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.function.json
}

resource "aws_iam_role_policy" "connect" {
  name   = var.auth == "iam" ? "connect" : "read-the-secret"
  role   = aws_iam_role.function.id
  policy = var.auth == "iam" ? data.aws_iam_policy_document.connect.json : data.aws_iam_policy_document.read_secret.json
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = 30
}

data "archive_file" "function" {
  type        = "zip"
  source_file = "${path.module}/../function/handler.py"
  output_path = "${path.module}/function.zip"
}

resource "aws_lambda_layer_version" "layer" {
  layer_name               = var.name
  filename                 = var.layer_zip
  source_code_hash         = filebase64sha256(var.layer_zip)
  compatible_runtimes      = ["python3.13"]
  compatible_architectures = ["arm64"]
}

resource "aws_lambda_function" "function" {
  function_name    = var.name
  filename         = data.archive_file.function.output_path
  source_code_hash = data.archive_file.function.output_base64sha256
  handler          = "handler.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  memory_size      = 512
  timeout          = 15
  role             = aws_iam_role.function.arn
  layers           = [aws_lambda_layer_version.layer.arn]

  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [aws_security_group.function.id]
  }

  environment {
    variables = merge(local.environment, local.environment_of[var.auth])
  }

  # Without the permission for its interfaces the function can't be created in a VPC.
  depends_on = [aws_iam_role_policy.function]
}
