"""The reconciler under simulation: a made-up world, seeded bad luck, virtual time."""
