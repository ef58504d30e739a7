// A race that ThreadSanitizer must see: two threads add to one number. Where it is not reported, no silence means anything.
#include <pthread.h>
#include <stdio.h>

static int number;

static void *add(void *arg) {
  for (int i = 0; i < 1000; i++)
    number++;
  return arg;
}

int main(void) {
  pthread_t other;
  if (pthread_create(&other, NULL, add, NULL))
    return 1;
  add(NULL);
  return pthread_join(other, NULL) || printf("%d\n", number) < 0;
}
