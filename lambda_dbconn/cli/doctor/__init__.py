"""What `lambda-dbconn doctor` does: it shows what `lambda_dbconn.doctor` finds."""
