//! Frames over a Unix socket, blocking: both ends have one thread that does nothing else. What they mean is not known here.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::wire::{self, Frame, FrameError};

/// How much is put into one data frame: a pipe's worth, so that both ends work at once.
const CHUNK: usize = 64 * 1024;

/// Why talking to the other end failed.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The other end is gone, or the socket broke.
    #[error("the connection ended early")]
    Gone(#[source] io::Error),
    /// It sent something that is no frame.
    #[error("the other end sent {0}")]
    Frame(#[from] FrameError),
    /// It sent a frame that makes no sense now.
    #[error("the other end sent an unexpected frame ({0})")]
    Unexpected(&'static str),
}

/// One end of the connection.
pub struct Channel {
    stream: Arc<UnixStream>,
}

/// Ends a [`Channel`] from another thread when dropped: whoever blocks in it sees the end of the stream.
pub struct Hangup(Arc<UnixStream>);

impl Drop for Hangup {
    fn drop(&mut self) {
        // Fails only when the other end has hung up already.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Channel {
    /// Wraps a connected, blocking stream.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: Arc::new(stream) }
    }

    /// Connects to `path`, trying again until `limit` is over: both containers start at about the same time. None when
    /// `given_up` says meanwhile that there is nothing to wait for.
    pub fn connect(path: &Path, limit: Duration, given_up: impl Fn() -> bool) -> Result<Option<Self>, SocketError> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Some(Self::new(stream))),
                Err(_) if given_up() => return Ok(None),
                Err(error) if start.elapsed() >= limit => return Err(SocketError::Gone(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// A handle that ends this channel when it is dropped.
    #[must_use]
    pub fn hangup(&self) -> Hangup {
        Hangup(Arc::clone(&self.stream))
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) -> Result<(), SocketError> {
        let bytes = frame.encode()?;
        (&*self.stream).write_all(&bytes).map_err(SocketError::Gone)
    }

    /// Waits for the next frame.
    pub fn receive(&mut self) -> Result<Frame, SocketError> {
        let mut head = [0; wire::HEAD];
        self.fill(&mut head)?;
        let (kind, length) = wire::length(head)?;
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        Ok(Frame::decode(kind, payload)?)
    }

    /// Sends what is written to it as data frames; [`DataWriter::finish`] must be called.
    pub fn data_writer(&mut self) -> DataWriter<'_> {
        DataWriter { channel: self, buffer: Vec::with_capacity(CHUNK) }
    }

    /// Reads the data frames that come, to their end.
    pub fn data_reader(&mut self) -> DataReader<'_> {
        DataReader { channel: self, left: 0, stop: None }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SocketError> {
        (&*self.stream).read_exact(bytes).map_err(SocketError::Gone)
    }
}

/// A `Write` that sends data frames.
pub struct DataWriter<'a> {
    channel: &'a mut Channel,
    buffer: Vec<u8>,
}

impl DataWriter<'_> {
    /// Sends what is left, and the end mark.
    pub fn finish(mut self) -> Result<(), SocketError> {
        self.send_buffer()?;
        self.channel.send(&Frame::DataEnd)
    }

    fn send_buffer(&mut self) -> Result<(), SocketError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut stream = &*self.channel.stream;
        let head = wire::data_head(self.buffer.len())?;
        stream.write_all(&head).and_then(|()| stream.write_all(&self.buffer)).map_err(SocketError::Gone)?;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for DataWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.buffer.len() == CHUNK {
            self.send_buffer().map_err(io::Error::other)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A `Read` over data frames. Anything but data ends it with an error, kept for [`DataReader::stop`].
pub struct DataReader<'a> {
    channel: &'a mut Channel,
    left: usize,
    stop: Option<Result<Frame, SocketError>>,
}

impl DataReader<'_> {
    /// What ended the stream, as far as it ended: `DataEnd` when all is well.
    pub fn stop(self) -> Option<Result<Frame, SocketError>> {
        self.stop
    }

    fn advance(&mut self) -> Result<(), SocketError> {
        let mut head = [0; wire::HEAD];
        self.channel.fill(&mut head)?;
        match wire::length(head)? {
            (3, length) => self.left = length,
            (kind, length) => {
                let mut payload = vec![0; length];
                self.channel.fill(&mut payload)?;
                self.stop = Some(Ok(Frame::decode(kind, payload)?));
            }
        }
        Ok(())
    }
}

impl Read for DataReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0
            && self.stop.is_none()
            && !buffer.is_empty()
            && let Err(error) = self.advance()
        {
            self.stop = Some(Err(error));
        }
        match &self.stop {
            Some(Ok(Frame::DataEnd)) => return Ok(0),
            Some(_) => return Err(io::Error::other("the stream was interrupted")),
            None => {}
        }
        let count = buffer.len().min(self.left);
        let count = (&*self.channel.stream).read(buffer.get_mut(..count).unwrap_or_default());
        match count {
            Ok(0) if !buffer.is_empty() => {
                self.stop = Some(Err(SocketError::Gone(io::ErrorKind::UnexpectedEof.into())));
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count;
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                if kind != io::ErrorKind::Interrupted {
                    self.stop = Some(Err(SocketError::Gone(error)));
                }
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours), theirs)
    }

    fn read_all(channel: &mut Channel) -> (io::Result<Vec<u8>>, Option<Result<Frame, SocketError>>) {
        let mut reader = channel.data_reader();
        let mut bytes = Vec::new();
        let result = reader.read_to_end(&mut bytes).map(|_| bytes);
        (result, reader.stop())
    }

    #[test]
    fn data_arrives_as_it_was_sent() {
        let (mut ours, theirs) = pair();
        let data: Vec<u8> = (0..300_000_u32).map(|number| number.to_be_bytes()[3]).collect();
        let sent = data.clone();
        let sender = std::thread::spawn(move || {
            let mut channel = Channel::new(theirs);
            let mut writer = channel.data_writer();
            writer.write_all(&sent).unwrap();
            writer.finish().unwrap();
            channel.send(&Frame::Done).unwrap();
        });
        let (bytes, stop) = read_all(&mut ours);
        assert!(bytes.unwrap() == data);
        assert!(matches!(stop, Some(Ok(Frame::DataEnd))));
        assert_eq!(ours.receive().unwrap(), Frame::Done);
        sender.join().unwrap();
    }

    #[test]
    fn an_end_without_the_last_frame_is_told_from_a_complete_stream() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&[3, 0, 0, 0, 9, 1, 2]).unwrap();
        drop(theirs);
        let (bytes, stop) = read_all(&mut ours);
        assert!(bytes.is_err() && matches!(stop, Some(Err(SocketError::Gone(_)))));
        assert!(matches!(ours.receive(), Err(SocketError::Gone(_))));
    }

    #[test]
    fn a_foreign_frame_within_data_is_reported() {
        let (mut ours, mut theirs) = pair();
        theirs.write_all(&[3, 0, 0, 0, 1, 7, 5, 0, 0, 0, 0]).unwrap();
        let (bytes, stop) = read_all(&mut ours);
        assert!(bytes.is_err() && matches!(stop, Some(Ok(Frame::Done))));
    }

    #[test]
    fn huge_lengths_and_unknown_kinds_are_refused_without_waiting_for_them() {
        for head in [[3, 0xff, 0xff, 0xff, 0xff], [99, 0, 0, 0, 0]] {
            let (mut ours, mut theirs) = pair();
            theirs.write_all(&head).unwrap();
            assert!(matches!(ours.receive(), Err(SocketError::Frame(_))));
            theirs.write_all(&head).unwrap();
            let (bytes, stop) = read_all(&mut ours);
            assert!(bytes.is_err() && matches!(stop, Some(Err(SocketError::Frame(_)))));
        }
    }

    #[test]
    fn hanging_up_wakes_the_reader() {
        let (mut ours, theirs) = pair();
        let hangup = ours.hangup();
        let reader = std::thread::spawn(move || ours.receive().is_err());
        drop(hangup);
        assert!(reader.join().unwrap());
        drop(theirs);
    }
}
