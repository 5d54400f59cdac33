"""What argos.py is made of: reading what a response claims, judging its answer, opening its picture or clip, drawing a card."""
