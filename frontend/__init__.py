"""The Streamlit chat page. It talks HTTP to the service and imports nothing of it."""
