internal import CZeroMQ
internal import Glibc

/// Waits for any of many descriptors at a cost that does not grow with their number (epoll).
public final class DescriptorPoll {
    private let epoll: Int32
    private var events = [epoll_event](repeating: epoll_event(), count: 256)

    public init(_ descriptors: [Int32]) throws(SocketError) {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw .last("epoll_create1") }
        for (index, descriptor) in descriptors.enumerated() {
            var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: UInt64(index)))
            guard epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0 else { throw .last("epoll_ctl") }
        }
    }

    deinit {
        close(epoll)
    }

    /// - Returns: the indices of descriptors that can be read, some of them if there are many; none when the time is
    ///   over.
    public func wait(milliseconds: Int) -> [Int] {
        let count = epoll_wait(epoll, &events, Int32(events.count), Int32(clamping: milliseconds))
        return events.prefix(Int(max(count, 0))).map { Int($0.data.u64) }
    }
}
