# The secret of the user `app`: the proxy logs in with it at the database; with auth = "secret" the function, too.

ephemeral "aws_secretsmanager_random_password" "first" {
  password_length = 32
  # It goes into an SQL statement once, by hand.
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "app" {
  name_prefix = "${var.name}/app-"
  description = "The user app of ${var.name}"
}

resource "aws_secretsmanager_secret_version" "first" {
  secret_id = aws_secretsmanager_secret.app.id

  # Written once and kept nowhere: not in the state, not in a plan. Rotations change the secret after that, and Terraform
  # leaves it alone as long as the version below stays the same. The host is the database's, which the rotation needs,
  # never the proxy's: DB_HOST wins over it in the function.
  secret_string_wo = jsonencode({
    engine   = local.engine.secret_engine
    host     = aws_rds_cluster.database.endpoint
    port     = aws_rds_cluster.database.port
    dbname   = aws_rds_cluster.database.database_name
    username = "app"
    password = ephemeral.aws_secretsmanager_random_password.first.random_password
  })
  secret_string_wo_version = 1
}

# AWS's own function for one user, from the Serverless Application Repository. The commercial regions have it in
# us-east-1; China and GovCloud have addresses of their own.
resource "aws_serverlessapplicationrepository_cloudformation_stack" "rotation" {
  name             = "${var.name}-rotation"
  application_id   = "arn:aws:serverlessrepo:us-east-1:297356227824:applications/${local.engine.rotation}"
  semantic_version = "1.1.671"
  capabilities     = ["CAPABILITY_IAM", "CAPABILITY_RESOURCE_POLICY"]

  parameters = {
    endpoint            = "https://secretsmanager.${data.aws_region.current.region}.${data.aws_partition.current.dns_suffix}"
    functionName        = "${var.name}-rotation"
    vpcSubnetIds        = join(",", var.subnet_ids)
    vpcSecurityGroupIds = aws_security_group.rotation.id
  }
}

resource "aws_secretsmanager_secret_rotation" "app" {
  secret_id           = aws_secretsmanager_secret.app.id
  rotation_lambda_arn = aws_serverlessapplicationrepository_cloudformation_stack.rotation.outputs["RotationLambdaARN"]

  # True is the default, and would rotate now, while the database has no user `app` yet: the rotation logs in as that user
  # to change its password.
  rotate_immediately = false

  rotation_rules {
    schedule_expression = "rate(30 days)"
  }

  depends_on = [aws_secretsmanager_secret_version.first]
}
