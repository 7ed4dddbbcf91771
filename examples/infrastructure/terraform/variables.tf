variable "name" {
  description = "Of the function and the proxy; the rest is named after it."
  type        = string
  default     = "shop"
}

variable "engine" {
  type    = string
  default = "postgresql"

  validation {
    condition     = contains(["postgresql", "mysql"], var.engine)
    error_message = "engine is postgresql or mysql."
  }
}

variable "auth" {
  description = "How the function logs in at the proxy: iam, by a token that its own role signs, or secret."
  type        = string
  default     = "iam"

  validation {
    condition     = contains(["iam", "secret"], var.auth)
    error_message = "auth is iam or secret."
  }
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  description = "Private subnets in two or more availability zones, none of them in use1-az3 or usw1-az2."
  type        = list(string)
}

variable "has_secrets_manager_route" {
  description = "Whether the subnets reach Secrets Manager already, by a NAT gateway or by an interface endpoint."
  type        = bool
  # A second interface endpoint with private DNS in the same VPC would be refused.
  default = false
}

variable "layer_zip" {
  description = "From: lambda-dbconn layer --python 3.13 --arch arm64 --engine postgresql,mysql -o ../layer.zip"
  type        = string
  default     = "../layer.zip"
}

locals {
  engines = {
    postgresql = {
      family          = "POSTGRESQL"
      cluster         = "aurora-postgresql"
      version         = "17.7"
      parameter_group = "aurora-postgresql17"
      # The proxy listens on the engine's standard port, whatever the database's own is [RDS:rds-proxy].
      port = 5432
      # Run on each new database connection; it pins nothing, SET in the function would. It can be read by everyone who
      # may describe the target group. The limit is the function's timeout.
      init_query = "SET statement_timeout = '15s'"
      # Limits on the server, for what outlives its client. A change reaches the proxy after the instances' reboot
      # [RDS:rds-proxy].
      parameters = {
        "rds.force_ssl"                       = "1"
        "client_connection_check_interval"    = "1000"
        "idle_in_transaction_session_timeout" = "60000"
      }
      secret_engine = "postgres"
      rotation      = "SecretsManagerRDSPostgreSQLRotationSingleUser"
    }
    mysql = {
      family          = "MYSQL"
      cluster         = "aurora-mysql"
      version         = "8.0.mysql_aurora.3.10.3"
      parameter_group = "aurora-mysql8.0"
      port            = 3306
      init_query      = "SET max_execution_time = 15000"
      parameters = {
        "require_secure_transport" = "ON"
        "innodb_lock_wait_timeout" = "10"
      }
      secret_engine = "mysql"
      rotation      = "SecretsManagerRDSMySQLRotationSingleUser"
    }
  }
  engine = local.engines[var.engine]
  # Region and account, for ARNs that are written by hand.
  arn_tail = "${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}"
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_subnet" "given" {
  for_each = toset(var.subnet_ids)
  id       = each.value
}
