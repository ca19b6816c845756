"""What was measured on rated photographs, with receipts; the photographs and their scores are not here."""
