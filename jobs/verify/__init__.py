"""Whether what OUT holds is whole and right, and the repair of what can be repaired safely."""
