"""The parts of `Supervisor`: start with `decisions`, where its judgement is."""
