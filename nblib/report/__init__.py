"""From the folders of runs to tables, comparisons, the audit and figures."""
