"""What `lambda-dbconn iam-policy` does: the least policy for some settings, in the languages of infrastructure."""
