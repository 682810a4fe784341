"""How fast Handscroll is: beside the machine's floors, its own modes and its peers. Not tests."""
