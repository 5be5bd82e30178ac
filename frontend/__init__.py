"""The Streamlit chat. It speaks HTTP to the service and imports nothing of it."""
