int tf_placeholder(void);
