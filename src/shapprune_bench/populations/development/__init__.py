"""The families of the development population, a module a data set."""
