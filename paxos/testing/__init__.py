"""Tools that try to break a replicated state machine: simulation, exploration, and the judges of both."""
