"""The settings that a user can write, and how they become one `Config`."""
