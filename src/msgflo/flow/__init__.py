"""What is said: graphs, their texts and pictures, announcements, bindings. All of it pure."""
