"""Objectives of the policy loop: what one step computes, one module for each kind."""
