"""From runs to the paper's tables and figures. Never imports torch."""
