"""What `lambda-dbconn pins` does: files → texts of SQL → statements that pin → lines of a report.

`sources` finds and reads files, `literals` takes the texts out of Python code, `shapes` tells statements from prose,
`search` brings them before the judge, `report` prints. The judge is `lambda_dbconn.proxy`.
"""
