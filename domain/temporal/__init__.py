"""The time that a question names: read from English and Chinese, and what memories of that time gain. Pure."""
