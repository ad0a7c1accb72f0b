"""One YAML file per question: its first line is the question, its second the command that answers it."""
