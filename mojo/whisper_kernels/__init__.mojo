from .log_mel import LogMel
