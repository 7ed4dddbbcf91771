resource "aws_db_subnet_group" "database" {
  name       = var.name
  subnet_ids = var.subnet_ids
}

resource "aws_rds_cluster_parameter_group" "database" {
  name   = var.name
  family = local.engine.parameter_group

  dynamic "parameter" {
    for_each = local.engine.parameters
    content {
      name  = parameter.key
      value = parameter.value
      # Some are read at the start only, and the provider's default, immediate, is refused for those.
      apply_method = "pending-reboot"
    }
  }
}

resource "aws_rds_cluster" "database" {
  cluster_identifier = var.name
  engine             = local.engine.cluster
  engine_version     = local.engine.version
  port               = local.engine.port
  database_name      = "shop"

  # RDS makes the master user's secret, and rotates it. Nobody but an administrator reads it.
  master_username             = "administrator"
  manage_master_user_password = true

  # The Data API is how an administrator reaches a database in private subnets, to create the user `app`.
  enable_http_endpoint = true

  db_subnet_group_name            = aws_db_subnet_group.database.name
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.database.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  storage_encrypted               = true
  backup_retention_period         = 7
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  final_snapshot_identifier       = "${var.name}-final"

  serverlessv2_scaling_configuration {
    # Not 0: the proxy keeps its own connections, so a cluster behind one does not pause.
    min_capacity = 0.5
    max_capacity = 4
  }
}

# A writer, and a reader without which the proxy's read-only endpoint answers with an error.
resource "aws_rds_cluster_instance" "database" {
  count               = 2
  identifier          = "${var.name}-${count.index}"
  cluster_identifier  = aws_rds_cluster.database.id
  engine              = aws_rds_cluster.database.engine
  engine_version      = aws_rds_cluster.database.engine_version
  instance_class      = "db.serverless"
  publicly_accessible = false
}
