"""How settings are declared, how they check themselves, and how a user's own part takes a component's place."""
