#include <zmq.h>
// Not in Swift's Glibc module.
#include <sys/eventfd.h>
#include <sys/prctl.h>

// prctl is variadic and pthread_setname_np an extension: Swift imports neither.
static inline int name_this_thread(const char *name) { return prctl(PR_SET_NAME, name, 0, 0, 0); }
