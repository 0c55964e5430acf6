"""The paper's claims, judged by runs."""
