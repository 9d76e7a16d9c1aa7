"""What `versus` is made of: the brokers, the scenarios, the tables, the plots."""
