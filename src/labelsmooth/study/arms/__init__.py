"""Arms: the table of methods, and the parsing and construction of an arm."""
