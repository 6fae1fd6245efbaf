"""Who may do what: principals, roles, tenants, users, sessions and tokens."""
