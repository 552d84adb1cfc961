"""What notebooks 05 to 13 call: one module a question, with its parameters. A new notebook begins here."""
