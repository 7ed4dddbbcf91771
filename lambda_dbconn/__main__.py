"""`python -m lambda_dbconn` is the command `lambda-dbconn`."""

from lambda_dbconn.cli import main

if __name__ == "__main__":
    main()
