output "function_name" {
  value = aws_lambda_function.function.function_name
}

output "proxy_endpoint" {
  value = aws_db_proxy.proxy.endpoint
}

output "reader_endpoint" {
  value = aws_db_proxy_endpoint.reader.endpoint
}

output "cluster_arn" {
  value = aws_rds_cluster.database.arn
}

output "master_secret_arn" {
  value = aws_rds_cluster.database.master_user_secret[0].secret_arn
}

output "app_secret_arn" {
  value = aws_secretsmanager_secret.app.arn
}
