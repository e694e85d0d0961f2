"""The durable truth about payments: schema, guarded transitions, group commit, migrations."""
