//! What the ring uses of tokio, made of loom's primitives: `sync::watch` with its promise that who
//! waits after a change was marked as seen is woken by the next one.

pub mod time {
    //! Time is not modelled.
    pub use std::time::Instant;
}

pub mod sync {
    //! See the crate.

    pub mod watch {
        //! A value that is watched.

        use std::future::poll_fn;
        use std::sync::Arc;
        use std::task::{Poll, Waker};

        use loom::sync::Mutex;

        /// The sender is gone. Here it never is before its receivers.
        #[derive(Debug)]
        pub struct Closed;

        #[derive(Debug)]
        struct State<T> {
            value: T,
            version: u64,
            wakers: Vec<Waker>,
        }

        /// The end that changes the value.
        #[derive(Debug)]
        pub struct Sender<T>(Arc<Mutex<State<T>>>);

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Self(Arc::clone(&self.0))
            }
        }

        /// The end that is told.
        #[derive(Debug)]
        pub struct Receiver<T> {
            state: Arc<Mutex<State<T>>>,
            seen: u64,
        }

        impl<T> Sender<T> {
            pub fn new(value: T) -> Self {
                let state = State {
                    value,
                    version: 0,
                    wakers: Vec::new(),
                };
                Self(Arc::new(Mutex::new(state)))
            }

            pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
                let mut state = self.0.lock().unwrap();
                change(&mut state.value);
                state.version += 1;
                let wakers = std::mem::take(&mut state.wakers);
                drop(state);
                wakers.into_iter().for_each(Waker::wake);
            }

            pub fn send_replace(&self, value: T) -> T {
                let mut old = None;
                self.send_modify(|held| old = Some(std::mem::replace(held, value)));
                old.expect("the change was made")
            }

            pub fn subscribe(&self) -> Receiver<T> {
                let seen = self.0.lock().unwrap().version;
                Receiver {
                    state: Arc::clone(&self.0),
                    seen,
                }
            }
        }

        /// A copy, where tokio gives a guard.
        #[derive(Debug)]
        pub struct Ref<T>(T);

        impl<T> std::ops::Deref for Ref<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T: Clone> Sender<T> {
            pub fn borrow(&self) -> Ref<T> {
                Ref(self.0.lock().unwrap().value.clone())
            }
        }

        impl<T> Receiver<T> {
            pub fn has_changed(&self) -> Result<bool, Closed> {
                Ok(self.state.lock().unwrap().version != self.seen)
            }

            pub fn mark_unchanged(&mut self) {
                self.seen = self.state.lock().unwrap().version;
            }

            pub async fn changed(&mut self) -> Result<(), Closed> {
                poll_fn(|cx| {
                    let mut state = self.state.lock().unwrap();
                    if state.version == self.seen {
                        state.wakers.push(cx.waker().clone());
                        return Poll::Pending;
                    }
                    self.seen = state.version;
                    Poll::Ready(Ok(()))
                })
                .await
            }
        }

        impl<T: Clone> Receiver<T> {
            pub fn borrow(&self) -> Ref<T> {
                Ref(self.state.lock().unwrap().value.clone())
            }

            pub fn borrow_and_update(&mut self) -> Ref<T> {
                self.mark_unchanged();
                self.borrow()
            }

            /// Waits until the value is as wanted.
            pub async fn wait_for(
                &mut self,
                mut is_wanted: impl FnMut(&T) -> bool,
            ) -> Result<Ref<T>, Closed> {
                loop {
                    let value = self.borrow_and_update();
                    if is_wanted(&value) {
                        return Ok(value);
                    }
                    self.changed().await?;
                }
            }
        }
    }
}
