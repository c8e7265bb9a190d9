"""Round after round: plans, energy over a horizon, an allocator that stays, a simulator."""
