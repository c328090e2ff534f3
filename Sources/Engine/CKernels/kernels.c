int tf_placeholder(void){return 0;}
