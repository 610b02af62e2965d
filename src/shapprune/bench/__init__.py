"""The paper's tables and figures: a list of cells, a JSON file each, pages made from the files."""
