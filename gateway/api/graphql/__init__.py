"""GraphQL over the operations of the API: each field is one of them, with its guard, its permission and its sight."""
