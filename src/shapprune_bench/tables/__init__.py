"""The paper's tables and figures: models, defences, what is measured, and the report."""
