"""The method: one box of the paper's Figure 1 a file, the evidence of the verdict first."""
