internal import CZeroMQ
public func x() -> Int { 1 }
