"""From rankings to scores: measures, significance, reports, official files."""
