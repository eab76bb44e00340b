"""The SUPERB tasks: frozen upstream, learned weighted sum of its states, a light head per task."""
