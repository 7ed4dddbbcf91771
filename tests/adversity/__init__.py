"""What a database connection has to live through, on real servers behind a relay that breaks the path to them."""
